"""Operations: telling people, rehearsing incidents, and keeping the system in order."""
