"""The experiment as a whole: its checks, the path of every file, the columns of every table."""
