"""A limit on memory, found without the files of /proc."""

import mmap
import resource


def limit_memory(more: int) -> None:
    """Let this process have so many more bytes than it has, to within 1 MB."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    low, high = 0, 1 << 47
    while high - low > 1 << 20:
        middle = (low + high) // 2
        resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
        try:
            mmap.mmap(-1, 4096).close()
            high = middle
        except (OSError, MemoryError):
            low = middle
    resource.setrlimit(resource.RLIMIT_AS, (high + more, hard))
