"""mempalace-broker: one writer for one MemPalace."""

__version__ = "0.1.0"
