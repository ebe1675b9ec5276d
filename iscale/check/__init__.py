"""What will go wrong with a project, said before any work, from headers, tables and small overviews."""
