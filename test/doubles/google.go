// SPDX-License-Identifier: Apache-2.0

package doubles

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Google is oauth2.googleapis.com for one service account: it gives an access token for
// a statement that the account's key signed (RFC 7523).
type Google struct {
	Key  string        // the account's JSON key
	Life time.Duration // of a token; set before serving
	Now  func() time.Time

	key *rsa.PrivateKey

	mu     sync.Mutex
	tokens []string
	fail   int // answer so many exchanges with an error
}

const googleEmail = "agent@project.iam.gserviceaccount.com"

// NewGoogle makes an account.
func NewGoogle() (*Google, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("double account: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("double account: %w", err)
	}
	text, err := json.MarshalIndent(map[string]string{"type": "service_account", "project_id": "project", "private_key_id": "k1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "client_email": googleEmail,
		"token_uri": "https://oauth2.googleapis.com/token"}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("double account: %w", err)
	}
	return &Google{Key: string(text), Life: time.Hour, Now: time.Now, key: key}, nil
}

// Tokens are those that were given out, oldest first.
func (g *Google) Tokens() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.tokens...)
}

// Fail lets the next n exchanges fail.
func (g *Google) Fail(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = n
}

// Verify checks that a request carries the newest token.
func (g *Google) Verify(r Received) error {
	all := g.Tokens()
	if len(all) == 0 || r.Header.Get("Authorization") != "Bearer "+all[len(all)-1] {
		return fmt.Errorf("the header Authorization is %q", r.Header.Get("Authorization"))
	}
	return nil
}

// ServeHTTP exchanges a statement.
func (g *Google) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	err := g.check(req)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fail > 0 {
		g.fail--
		err = fmt.Errorf("told to fail")
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": err.Error()})
		return
	}
	token := fmt.Sprintf("ya29.token-%d", len(g.tokens))
	g.tokens = append(g.tokens, token)
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_in": int(g.Life.Seconds()), "token_type": "Bearer"})
}

func (g *Google) check(req *http.Request) error {
	if req.Method != http.MethodPost || req.URL.Path != "/token" || req.Host != "oauth2.googleapis.com" {
		return fmt.Errorf("%s %s%s", req.Method, req.Host, req.URL.Path)
	}
	if grant := req.PostFormValue("grant_type"); grant != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return fmt.Errorf("grant type %q", grant)
	}
	parts := strings.Split(req.PostFormValue("assertion"), ".")
	if len(parts) != 3 {
		return fmt.Errorf("no JWT")
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&g.key.PublicKey, crypto.SHA256, sum[:], sig); err != nil {
		return err
	}
	var head struct{ Alg, Kid string }
	var claims struct {
		Iss, Scope, Aud string
		Iat, Exp        int64
	}
	for i, v := range []any{&head, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			return err
		}
	}
	now := g.Now().Unix()
	if head.Alg != "RS256" || head.Kid != "k1" || claims.Iss != googleEmail || claims.Aud != "https://oauth2.googleapis.com/token" ||
		claims.Scope != "https://www.googleapis.com/auth/cloud-platform" || claims.Iat > now+5 || claims.Exp < now || claims.Exp-claims.Iat > 3600 {
		return fmt.Errorf("%+v %+v", head, claims)
	}
	return nil
}
