"""What belongs to the process: threads, forks, its end, and the context of the work at hand."""
