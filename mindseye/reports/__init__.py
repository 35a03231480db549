"""What people look at: made from run folders alone, after the fact, as often as one likes."""
