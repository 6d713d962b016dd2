"""What watches a training by RL: it stops a run that is broken, and says why one does not learn."""
