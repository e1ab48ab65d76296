// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// AWSKey is an access key as the provider knows it.
type AWSKey struct{ ID, Secret, Token, Region, Service string }

// Verify checks the signature (AWS Signature Version 4) of a received request. It is
// written from the IAM User Guide, "Signing AWS API requests", and shares no code with
// what signs.
func (k AWSKey) Verify(r Received) error {
	auth, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return errors.New("not signed")
	}
	part := map[string]string{}
	for _, p := range strings.Split(auth, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		part[name] = value
	}
	date := r.Header.Get("X-Amz-Date")
	if len(date) != len("20060102T150405Z") {
		return errors.New("no date")
	}
	scope := date[:8] + "/" + k.Region + "/" + k.Service + "/aws4_request"
	if part["Credential"] != k.ID+"/"+scope {
		return fmt.Errorf("credential %s, not %s/%s", part["Credential"], k.ID, scope)
	}
	signed := strings.Split(part["SignedHeaders"], ";")
	if !slices.Contains(signed, "host") || !slices.Contains(signed, "x-amz-date") || k.Token != "" && !slices.Contains(signed, "x-amz-security-token") {
		return fmt.Errorf("signed are only %v", signed)
	}
	if r.Header.Get("X-Amz-Security-Token") != k.Token {
		return errors.New("another session token")
	}
	canonical := canonicalRequest(r, signed)
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + date + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + k.Secret)
	for _, s := range []string{date[:8], k.Region, k.Service, "aws4_request"} {
		key = mac(key, s)
	}
	if want := hex.EncodeToString(mac(key, text)); part["Signature"] != want {
		return fmt.Errorf("signature %s, not %s of\n%s", part["Signature"], want, canonical)
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func canonicalRequest(r Received, signed []string) string {
	path, query, _ := strings.Cut(r.Target, "?")
	var segments []string
	for _, s := range strings.Split(path, "/") {
		segments = append(segments, strings.ReplaceAll(url.QueryEscape(s), "+", "%20")) // once more than it was sent
	}
	pairs := strings.Split(query, "&")
	slices.Sort(pairs)
	var b strings.Builder
	b.WriteString(r.Method + "\n" + strings.Join(segments, "/") + "\n" + strings.Join(pairs, "&") + "\n")
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(len(r.Body))
		}
		b.WriteString(name + ":" + strings.Join(strings.Fields(value), " ") + "\n")
	}
	sum := sha256.Sum256(r.Body)
	b.WriteString("\n" + strings.Join(signed, ";") + "\n" + hex.EncodeToString(sum[:]))
	return b.String()
}
