import sys

from chassis.migrations import main

sys.exit(main())
