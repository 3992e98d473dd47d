"""The processes of an interface server: started, watched and ended."""
