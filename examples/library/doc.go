// Package library shows how a program of your own uses a generated package:
// see its examples. They are run as tests. Those of runtime show single calls;
// examples/serve is a whole service.
package library
