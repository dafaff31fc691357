"""Finished runs and models from elsewhere: judged, asked, repeated."""
