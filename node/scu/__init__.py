"""One request to one peer: C-STORE, C-ECHO, storage commitment, C-FIND or STOW-RS."""
