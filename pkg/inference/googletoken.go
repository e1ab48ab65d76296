// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// GoogleTokenHost is where access tokens of service accounts are given out. No key
// names another place: a key that says so is refused.
const GoogleTokenHost = "oauth2.googleapis.com"

const (
	googleTokenURL = "https://" + GoogleTokenHost + "/token"
	googleScope    = "https://www.googleapis.com/auth/cloud-platform"
	googleGrant    = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	assertionLife  = time.Hour        // the most that Google takes
	tokenTime      = 15 * time.Second // for one exchange
	tokenMargin    = 2 * time.Minute  // a token that ends so soon is not used any more
	tokenRetry     = 5 * time.Second  // after a refusal, until the next try
	maxTokenAnswer = 64 << 10
	maxTokens      = 256 // accounts remembered
)

// serviceAccount is the JSON key of a service account, as far as it is needed.
type serviceAccount struct {
	Type         string `json:"type"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	ClientEmail  string `json:"client_email"`
	TokenURI     string `json:"token_uri"`
}

var errToken = errors.New("no access token from Google for its service account")

// googleTokens exchanges keys of service accounts for access tokens (RFC 7523) and
// remembers these until shortly before they end. One exchange for a key runs at a time,
// in the call that needs the token first; others wait for it, and no longer than
// tokenTime even if that call's client goes away. Safe for concurrent use.
type googleTokens struct {
	now func() time.Time

	mu   sync.Mutex
	held map[[sha256.Size]byte]*googleToken // by the hash of the key's text
}

// googleToken is one token, or the reason why there is none.
type googleToken struct {
	done  chan struct{} // closed when what follows is there
	value string
	err   error
	until time.Time
}

func newGoogleTokens(now func() time.Time) *googleTokens {
	return &googleTokens{now: now, held: map[[sha256.Size]byte]*googleToken{}}
}

// token returns an access token for a service account. rt reaches GoogleTokenHost.
func (g *googleTokens) token(ctx context.Context, key string, rt http.RoundTripper) (string, error) {
	id := sha256.Sum256([]byte(key))
	g.mu.Lock()
	t := g.held[id]
	mine := t == nil || t.over(g.now())
	if mine {
		t = g.begin(id)
	}
	g.mu.Unlock()
	if t == nil {
		return "", errToken
	}
	if mine {
		fctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tokenTime)
		g.fetch(fctx, t, key, rt)
		cancel()
	}
	select {
	case <-t.done:
		return t.value, t.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// forget drops the token of a key: it was refused before its time.
func (g *googleTokens) forget(key string) {
	id := sha256.Sum256([]byte(key))
	g.mu.Lock()
	defer g.mu.Unlock()
	if t := g.held[id]; t != nil {
		select {
		case <-t.done:
			delete(g.held, id)
		default: // a new one is on its way
		}
	}
}

// over says whether a token that is there is not good any more.
func (t *googleToken) over(now time.Time) bool {
	select {
	case <-t.done:
		return !now.Before(t.until)
	default:
		return false
	}
}

// begin makes room for a token; the caller holds mu. nil: there is none.
func (g *googleTokens) begin(id [sha256.Size]byte) *googleToken {
	if len(g.held) >= maxTokens {
		now := g.now()
		for k, t := range g.held {
			if t.over(now) {
				delete(g.held, k)
			}
		}
	}
	if len(g.held) >= maxTokens {
		return nil
	}
	t := &googleToken{done: make(chan struct{})}
	g.held[id] = t
	return t
}

func (g *googleTokens) fetch(ctx context.Context, t *googleToken, key string, rt http.RoundTripper) {
	defer close(t.done)
	value, life, err := g.exchange(ctx, key, rt)
	if err != nil {
		t.err, t.until = err, g.now().Add(tokenRetry)
		return
	}
	t.value, t.until = value, g.now().Add(life-min(tokenMargin, life/2))
}

// exchange gets one token and its life.
func (g *googleTokens) exchange(ctx context.Context, key string, rt http.RoundTripper) (string, time.Duration, error) {
	assertion, err := g.assertion(key)
	if err != nil {
		return "", 0, err
	}
	form := url.Values{"grant_type": {googleGrant}, "assertion": {assertion}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, googleTokenURL, strings.NewReader(form))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", errToken, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxTokenAnswer))
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", errToken, err)
	}
	var a struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"`
		TokenType   string `json:"token_type"`
		Error       string `json:"error"`
	}
	if err := json.Unmarshal(body, &a); err != nil || resp.StatusCode != http.StatusOK {
		return "", 0, fmt.Errorf("%w: status %d, error %s", errToken, resp.StatusCode, quote(a.Error))
	}
	if a.AccessToken == "" || !headerSafe(a.AccessToken) || !strings.EqualFold(a.TokenType, "Bearer") || a.ExpiresIn <= 0 || a.ExpiresIn > 86400 {
		return "", 0, fmt.Errorf("%w: its answer is not a bearer token", errToken)
	}
	return a.AccessToken, time.Duration(a.ExpiresIn) * time.Second, nil
}

// assertion is the signed statement (JWT, RS256) that is exchanged.
func (g *googleTokens) assertion(key string) (string, error) {
	var a serviceAccount
	if json.Unmarshal([]byte(key), &a) != nil || a.Type != "service_account" || a.ClientEmail == "" {
		return "", fmt.Errorf("%w: it wants the JSON key of a service account", errBadKey)
	}
	if a.TokenURI != "" && a.TokenURI != googleTokenURL {
		return "", fmt.Errorf("%w: its token_uri is not %s", errBadKey, googleTokenURL)
	}
	block, _ := pem.Decode([]byte(a.PrivateKey))
	if block == nil {
		return "", fmt.Errorf("%w: its private key is not PEM", errBadKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok {
		return "", fmt.Errorf("%w: its private key is not an RSA key in PKCS 8", errBadKey)
	}
	now := g.now()
	head := map[string]any{"alg": "RS256", "typ": "JWT", "kid": a.PrivateKeyID}
	claims := map[string]any{"iss": a.ClientEmail, "scope": googleScope, "aud": googleTokenURL, "iat": now.Unix(), "exp": now.Add(assertionLife).Unix()}
	text := base64.RawURLEncoding.EncodeToString(mustJSON(head)) + "." + base64.RawURLEncoding.EncodeToString(mustJSON(claims))
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, signer, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBadKey, err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}
