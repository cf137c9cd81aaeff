"""sql.read, sql.write, sql.migrate: databases that are guarded, reached as plain roles and in bounds."""
