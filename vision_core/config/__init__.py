"""Configuration: schema, loading, strict YAML."""
