"""The door over HTTP: a process of its own that holds no key and no database connection, and asks the resident one."""
