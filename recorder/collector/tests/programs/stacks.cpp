// A stack through C++: templates, a virtual call, std::function, std::sort, and a catch handler.
#include <algorithm>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

extern "C" void capture();

struct Shape {
    virtual ~Shape() = default;
    virtual int area(int depth) = 0;
};

struct Square : Shape {
    std::string name = "a name that is too long for the small buffer";
    std::vector<int> sides{3, 1, 2};

    int area(int depth) override {
        if (depth > 0) return area(depth - 1) + static_cast<int>(name.size());
        std::sort(sides.begin(), sides.end(), [this](int left, int right) {
            try {
                throw std::runtime_error(name);
            } catch (const std::exception &error) {
                capture();
                return error.what()[0] == left - right;
            }
        });
        return sides[0];
    }
};

int main() {
    Square square;
    Shape *shape = &square;
    std::function<int(int)> call = [shape](int depth) { return shape->area(depth) + 1; };
    return call(5);
}
