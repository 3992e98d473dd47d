"""The project that runs on two states of channelsq at a time, and the commit that holds the previous one."""
