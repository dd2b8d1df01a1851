// Work for a C++ compiler: containers, algorithms and regular expressions of the standard library.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>

template <int N> struct Node {
    std::map<std::string, std::vector<std::shared_ptr<Node<N - 1>>>> children;
    std::unordered_map<int, std::function<int(int)>> calls;
    int sum() const {
        int result = N;
        for (auto &[name, nodes] : children)
            for (auto &node : nodes) result += node->sum() + static_cast<int>(name.size());
        return result;
    }
};
template <> struct Node<0> {
    int sum() const { return 0; }
};

int main() {
    Node<24> root;
    std::regex word("([a-z]+)-([0-9]{2,4})");
    std::smatch match;
    std::string text = "leak-2024";
    std::vector<int> numbers(100);
    std::sort(numbers.begin(), numbers.end(), std::greater<>());
    if (std::regex_match(text, match, word)) std::cout << root.sum() << match[1] << "\n";
}
