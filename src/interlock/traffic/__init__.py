"""Which version answers which user: routings put in force at a proxy."""
