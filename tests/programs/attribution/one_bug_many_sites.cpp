//#Expect: one finding with its parts
//#Build: -lssl -lcrypto
// A TLS server and client in one process over memory BIOs. The server forgets to call SSL_free if the peer
// resets the connection.
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/evp.h>
#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <string>
struct Connection { SSL *ssl; explicit Connection(SSL *s) : ssl(s) {} };
static SSL_CTX *server_ctx, *client_ctx;
static int leaked;
static void make_cert() {
    EVP_PKEY *k = EVP_RSA_gen(2048); X509 *x = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), 0); X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, k); X509_sign(x, k, EVP_sha256());
    SSL_CTX_use_certificate(server_ctx, x); SSL_CTX_use_PrivateKey(server_ctx, k);
    X509_free(x); EVP_PKEY_free(k);
}
Connection accept_connection() { return Connection(SSL_new(server_ctx)); }
static void pump(SSL *a, SSL *b) {
    char buf[32768]; int n;
    while ((n = BIO_read(SSL_get_wbio(a), buf, sizeof buf)) > 0) BIO_write(SSL_get_rbio(b), buf, n);
}
void serve_one(bool reset) {
    Connection c = accept_connection();
    SSL *cl = SSL_new(client_ctx);
    SSL_set_bio(c.ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_bio(cl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(c.ssl); SSL_set_connect_state(cl);
    for (int i = 0; i < 6 && !(SSL_is_init_finished(cl) && SSL_is_init_finished(c.ssl)); i++) {
        SSL_do_handshake(cl); pump(cl, c.ssl); SSL_do_handshake(c.ssl); pump(c.ssl, cl);
    }
    if (!SSL_is_init_finished(c.ssl)) { ERR_print_errors_fp(stderr); exit(1); }
    SSL_write(cl, "GET /", 5); pump(cl, c.ssl); char b[64]; SSL_read(c.ssl, b, 64);
    SSL_free(cl);
    if (reset) leaked++; else SSL_free(c.ssl);      // the bug: no SSL_free
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]);
    server_ctx = SSL_CTX_new(TLS_server_method()); client_ctx = SSL_CTX_new(TLS_client_method());
    make_cert();
    for (int i = 0; i < n; i++) { serve_one(i % 4 == 0); usleep(20000); }
    printf("ledger: %d SSL objects leaked\n", leaked);
}
