"""The door for AI agents: its actions and views as tools of the Model Context Protocol."""
