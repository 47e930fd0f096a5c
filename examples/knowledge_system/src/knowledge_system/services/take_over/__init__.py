"""Taking over accounts, articles and files from the systems that were in use before."""
