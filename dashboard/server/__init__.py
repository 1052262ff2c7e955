"""What stands between strangers and the pages: sign-in, uploads and headers of every route."""
