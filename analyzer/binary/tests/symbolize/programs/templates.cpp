// Namespaces, templates, lambdas, virtual functions, exceptions, and inlined functions of the standard
// library.
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace store {

template <typename T> T max_of(T a, T b) { return a < b ? b : a; }

template <typename Key, typename Value> class Cache {
public:
    Value &get(const Key &key) {
        auto found = entries.find(key);
        if (found == entries.end())
            found = insert(key);
        return found->second;
    }
    __attribute__((noinline)) typename std::map<Key, Value>::iterator insert(const Key &key) {
        return entries.emplace(key, Value()).first;
    }

private:
    std::map<Key, Value> entries;
};

struct Shape {
    virtual ~Shape() = default;
    virtual double area() const = 0;
};

namespace {

struct Square : Shape {
    explicit Square(double side) : side(side) {}
    double area() const override { return side * side; }
    double side;
};

__attribute__((noinline)) std::unique_ptr<Shape> make(double side) {
    if (side < 0)
        throw std::invalid_argument("side " + std::to_string(side));
    return std::make_unique<Square>(side);
}

} // namespace

__attribute__((noinline)) double total(const std::vector<std::unique_ptr<Shape>> &shapes) {
    double sum = 0;
    auto add = [&sum](const Shape &shape) { sum += max_of(shape.area(), 0.5); };
    for (const auto &shape : shapes)
        add(*shape);
    return sum;
}

} // namespace store

int main(int argc, char **argv) {
    store::Cache<std::string, std::vector<int>> cache;
    std::vector<std::unique_ptr<store::Shape>> shapes;
    for (int i = 0; i < argc; i++) {
        cache.get(argv[i]).push_back(store::max_of(i, 3));
        try {
            shapes.push_back(store::make(i - 1.0));
        } catch (const std::exception &error) {
            std::puts(error.what());
        }
    }
    std::printf("%f\n", store::total(shapes));
}
