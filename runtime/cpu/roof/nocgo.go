//go:build !cgo

package roof

import (
	"errors"

	"github.com/vitgen/vitgen/runtime/cpu/isa"
)

func run(isa.Set, Op, int, uintptr, int, uint64) (result, error) {
	return result{}, errors.New("roof: built without cgo, there is nothing to measure with")
}
