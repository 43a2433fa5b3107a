"""NodeSpace: agents whose requests are asked in sessions, each with its wishes and its history."""
