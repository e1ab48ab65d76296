// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/x509"
	"fmt"
	"os"
)

// readRoots reads a PEM file of certificates that the configuration names in a
// field; without one there are none. The process that uses them would end at once
// for a file that holds none, each time it is started.
func readRoots(field, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s %s: it holds no certificate: name a PEM file (-----BEGIN CERTIFICATE-----), or leave it out to trust the system's roots alone", field, path)
	}
	return pem, nil
}
