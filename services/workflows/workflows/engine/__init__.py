"""The rules of definitions and runs, as pure code: it knows no HTTP server and no database."""
