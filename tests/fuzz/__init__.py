"""Input of clients and brokers, made up by a fuzzer that follows the code's branches."""
