package trainer

// rssUnit is the unit of getrusage's maxrss in bytes.
const rssUnit = 1024
