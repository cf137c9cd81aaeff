"""Tools of outside MCP servers: accepted by a person, pinned by what they say of themselves, called under policy."""
