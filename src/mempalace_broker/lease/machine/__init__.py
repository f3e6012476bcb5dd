"""Who may own the palace, as pure machines, the record that they write, and how both are described to people."""
