"""The durable queue under Huey's API: jobs are rows of the app's SQLite file."""
