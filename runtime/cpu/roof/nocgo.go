//go:build !cgo

package roof

import "errors"

// BestISA is what a build without C++ knows of: nothing.
func BestISA() ISA { return Plain }

func run(ISA, Op, int, uintptr, int, uint64) (result, error) {
	return result{}, errors.New("roof: built without cgo, there is nothing to measure with")
}
