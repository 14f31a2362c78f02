// Package passes turns a checked spec into the graphs of its programs and
// rewrites them until they can be emitted: building, simplification, row
// pruning, absorption of projections, gradients, precision, recomputation, fusion,
// order and memory.
//
// A pass maps a graph to a graph with the same outputs; [Passes] lists them in
// order with the reasons for it. The package does not evaluate graphs
// (ir/interp does) and knows no target language: choosing tiles and printing
// kernels is codegen's work.
package passes
