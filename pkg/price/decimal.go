// SPDX-License-Identifier: Apache-2.0

package price

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
)

// Rate is a price in nano-dollars per million units.
type Rate int64

// Powers of ten that make a Rate of an amount in US dollars.
const (
	perMillion = 9     // the amount is for a million
	perOne     = 9 + 6 // the amount is for one
	maxText    = 64    // bytes of a number
	maxExp     = 64    // its exponent, either way
	mega       = 1e6   // units that a Rate is for
	nanoDigits = 9     // decimal places of a nano-dollar
)

var (
	errNumber = errors.New("not a decimal number such as 1.25")
	errRange  = errors.New("too large a price")
	errFine   = errors.New("finer than a billionth of a dollar per million")
)

// parseRate reads a decimal number, exactly, and multiplies it by ten to the scale.
// What is finer than a Rate is an error, or with up the next larger Rate.
func parseRate(text string, scale int, up bool) (Rate, error) {
	digits, exp, err := decimal(text)
	if err != nil {
		return 0, err
	}
	exp += scale
	n, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return 0, errNumber
	}
	if exp >= 0 {
		n.Mul(n, pow10(exp))
	} else {
		var rest big.Int
		n.QuoRem(n, pow10(-exp), &rest)
		if rest.Sign() != 0 {
			if !up {
				return 0, errFine
			}
			n.Add(n, big.NewInt(1))
		}
	}
	if !n.IsInt64() {
		return 0, errRange
	}
	return Rate(n.Int64()), nil
}

func pow10(n int) *big.Int { return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil) }

// decimal takes a JSON number that is not negative apart: its digits, and the power
// of ten that they are multiplied by.
func decimal(text string) (digits string, exp int, err error) {
	if text == "" || len(text) > maxText {
		return "", 0, errNumber
	}
	mantissa, e, has := strings.Cut(strings.Replace(text, "E", "e", 1), "e")
	if has {
		if exp, err = strconv.Atoi(e); err != nil || exp > maxExp || exp < -maxExp {
			return "", 0, errNumber
		}
	}
	whole, frac, point := strings.Cut(mantissa, ".")
	if whole == "" || point && frac == "" {
		return "", 0, errNumber
	}
	digits = whole + frac
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return "", 0, errNumber
		}
	}
	return digits, exp - len(frac), nil
}

// dollars writes an amount that was multiplied by ten to the scale, exactly and
// without an exponent.
func dollars(v int64, scale int) string {
	s := strconv.FormatInt(v, 10)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	if len(s) <= scale {
		s = strings.Repeat("0", scale-len(s)+1) + s
	}
	whole, frac := s[:len(s)-scale], strings.TrimRight(s[len(s)-scale:], "0")
	if frac != "" {
		whole += "." + frac
	}
	if neg {
		return "-" + whole
	}
	return whole
}

// USD writes an amount of nano-dollars in dollars, exactly: "0.0123".
func USD(nano int64) string { return dollars(nano, nanoDigits) }
