"""The training machine: an NMArray with all its units, run from instruction memory."""
