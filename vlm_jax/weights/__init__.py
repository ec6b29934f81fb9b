"""Other projects' weights into ours and back: tables of names, one strict converter, proofs."""
