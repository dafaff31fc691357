"""Configurations: schema, composition, validation, and the objects built from them."""
