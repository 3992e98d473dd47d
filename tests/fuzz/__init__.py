"""What a client or the broker may send, made up by a fuzzer that looks at what the code does with it."""
