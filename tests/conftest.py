"""For all tests: what a run was started by may not make its processes deaf."""

import signal

# A shell starts what it puts into the background with SIGINT ignored, and children inherit that:
# Ctrl-C as the tests send it would reach nobody.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
