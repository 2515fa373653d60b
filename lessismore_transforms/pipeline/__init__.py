"""The reduction of a whole data set: one volume's task, all of them, going on after a stop."""
