"""Sessions: middleware, cookie, session handle, manager and stores."""
