"""Corpora, images and pairs: each source behind one small interface, with a fingerprint of its contents."""
