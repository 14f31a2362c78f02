// Package e2e tests vitgen as a whole: specs are compiled, the generated
// packages built by the Go tool, and their trainers run, against golden files
// and against the interpreter. It also holds the tests that concern every
// package, such as who may import whom. It has no code for others to import.
package e2e
