"""What a run will be: options and project as a job, its stages as steps, the workers, all as a table."""
