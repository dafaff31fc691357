"""Configurations: their schema, how they are composed and checked, and what they name, built."""
