"""Whether data and views need reduction at all: near copies that are closer to a slice than its own second view."""
