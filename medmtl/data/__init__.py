"""Data: from folders to tasks, from tasks to the union that one network is trained on."""
