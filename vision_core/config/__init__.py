"""Configuration: its schema, its loading, strict YAML."""
