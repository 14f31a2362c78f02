//go:build !linux

package main

import (
	"context"
	"errors"
)

func (b *builder) simulated(context.Context) error {
	return errors.New("the simulated device needs Linux")
}
